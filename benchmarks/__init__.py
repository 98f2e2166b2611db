"""How fast, beside what people use today: one runnable module per question, `python -m benchmarks.parse`."""
