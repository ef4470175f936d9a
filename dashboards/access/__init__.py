"""Who gets in: what every request is checked against, and the pages for logging in, accounts and administration.

rules.py        which role an address needs
origin.py       which hosts and origins are ours, and where a request comes from
cookies.py      the cookies, and the token that a form carries
identity.py     who is behind a request, and the headers that tell pages
sockets.py      open websockets, ended when their session is
site.py         forms that are posted, and how the HTML pages are drawn
pages.py        all of the pages below
notices.py      pages that only say something
log_in.py       log in and out, register, reset
account.py      one's own password and sessions
users.py        Admin: users, and the audit log
devices.py      Admin: devices and their tokens
hosts.py        Admin: virtual hosts
overview.py     Admin: settings
first.py        the first admin
single_sign_on.py  log-in with an OpenID Connect provider; oidc.py is its protocol

These pages are plain HTML forms: they work without JavaScript and without a session of Bokeh's.
"""
