"""The steps of the reference pipeline: from reads to joint genotypes and a report."""
