"""Notifications: people hear of events by e-mail, webhook and whatever apprise has an address for.

    events ──► Router (one a partition, pure) ──► Courier (one a process) ──► a sender of the channel ──► the far end
                 which channel hears of what        what leaves when, together     one attempt
                 its queue is the analytic's state  and what after a failure

A *message* is one state change for one channel, or several of one alarm that were folded. A *delivery* is what leaves: one
message, or a digest of many. What a delivery holds is stored before it is sent, and its id is made of that, so that a
process that dies between a send and its record sends the same thing under the same id again.
"""
