# ktserve: the HTTP layer and the API as two convenience libraries (unit tests link them), and the program
noinst_LTLIBRARIES += %D%/libhttp.la %D%/libapi.la
serve_libhttp_la_CFLAGS = $(ROOM_CFLAGS) $(EVENT_CFLAGS)
serve_libhttp_la_SOURCES = %D%/http.h
serve_libapi_la_CFLAGS = $(ROOM_CFLAGS) $(EVENT_CFLAGS) $(JANSSON_CFLAGS)
serve_libapi_la_SOURCES =
include serve/http.mk
include serve/api.mk
