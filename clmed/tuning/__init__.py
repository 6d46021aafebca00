"""`clmed tune`: methods compared when each is tuned alike. Read compare.py first."""
