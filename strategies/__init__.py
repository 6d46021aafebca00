"""The methods against forgetting that come with clmed, one a file; each is registered as an entry point in setup.cfg."""
