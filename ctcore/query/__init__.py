"""Reading: tables, SQL and files, all behind the gate."""
