"""Statistics over seeds, and tables of them; needs the group `report` of pyproject.toml."""
