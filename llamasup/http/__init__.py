"""HTTP/1.1 as it is spoken here: heads, bodies and connections. It knows no model."""
