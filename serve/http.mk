# the HTTP layer
