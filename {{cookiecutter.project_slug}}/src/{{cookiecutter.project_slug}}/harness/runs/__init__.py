"""What a run is known by, its folder, its record, and what differs between two runs."""
