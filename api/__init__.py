"""The skin of Facedex: the command line now, HTTP and pages later."""
