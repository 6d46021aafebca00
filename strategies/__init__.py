"""The methods against forgetting that come with clmed, one a file; setup.cfg registers each as an entry point."""
