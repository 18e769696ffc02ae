# documents and man pages
