"""Who may use the pages: users with a role, their sessions, and what they did.

    role.py        what a user may do
    names.py       how a user may be called, and which passwords are none
    passwords.py   argon2id, off the event loop, a few at a time
    users.py       the users and their roles; one admin is always left
    sessions.py    who is logged in; ends of sessions are told to every process
    links.py       invitations and resets: links that work once
    throttle.py    how often somebody may try
    audit.py       what was done, and what was refused
    accounts.py    all of it together: log in, change, disable, each with its entry in the audit log

All keys share the hash tag ``{accounts}``. Of whatever lets somebody in (session, link) only the SHA-256 is kept.
"""
