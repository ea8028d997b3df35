"""Reports for people: plots, tables, pages."""
