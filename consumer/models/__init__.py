"""What a model is, without torch: its options, its files, its signature."""
