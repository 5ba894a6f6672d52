"""The end of a consent: what contains a person is removed, what others need is not, and that is provable."""
