"""The inputs of every node today, the keys of calls, the memo, and exclusions."""
