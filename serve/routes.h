/* routes.h - the route table of ktserve and the handlers that answer at once. I/O thread.
 */
#ifndef KT_SERVE_ROUTES_H
#define KT_SERVE_ROUTES_H

#include "serve/http.h"

extern const struct http_route route_table[]; /* handlers get the struct app */

/* routes_admin.c */
void route_metrics(struct http_x *x, void *user);
void route_admin_status(struct http_x *x, void *user);
void route_admin_requests(struct http_x *x, void *user);
void route_admin_cancel(struct http_x *x, void *user);
void route_admin_drain(struct http_x *x, void *user);
void route_admin_placement(struct http_x *x, void *user);

#endif
