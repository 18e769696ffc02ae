# the HTTP layer
serve_libhttp_la_SOURCES += \
	%D%/conn.c %D%/conn.h \
	%D%/gate.c %D%/gate.h \
	%D%/http1.c %D%/http1.h \
	%D%/http_reply.c \
	%D%/http_server.c \
	%D%/keys.c %D%/keys.h \
	%D%/listen.c
