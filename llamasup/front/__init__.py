"""The public side: connections are read, routed, leased a child, and answered."""
