"""The words of the domain: levels, columns, schemas, cohorts, regions, nodes, reasons."""
