"""attrib and Captum 0.9.0 on the same inputs; where they differ, the test names the cause."""
