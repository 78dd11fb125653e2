"""What a task means to training, judging and exporting a model."""
