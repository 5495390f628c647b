"""Measurements of latchstore beside what people use today, side by side in one run."""
