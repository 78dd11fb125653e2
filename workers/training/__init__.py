"""The parts of a fine-tune: optimizer, masks, teacher, averages, and the step that joins them."""
