"""Every bad or odd input gets a clear error or the right answer, and leaves nothing behind."""
