"""The console proxy: from a WebSocket with a token to a guest's screen or serial console."""
