"""What a data set is: joints, bones, classes, names and protocols."""
