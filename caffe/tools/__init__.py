"""The commands of Caffe's folder tools/ that make and read data sets: one module each, of the same name and flags."""
