"""What the tests share: children, fakes, facts of /proc, and patience."""
