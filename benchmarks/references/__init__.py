"""The approaches that users have today, written plainly here: what our figures are ratios to."""
