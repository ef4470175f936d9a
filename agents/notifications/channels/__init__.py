"""Senders: a kind of channel each. Another kind is a class in `isotherm.channels`, a module here, and a line below."""

from __future__ import annotations

from agents.notifications.channels.apprise_url import AppriseSender
from agents.notifications.channels.mail import MailSender
from agents.notifications.channels.sender import Sender
from agents.notifications.channels.webhook import WebhookSender
from isotherm.channels import Apprise, Channel, Email, Webhook


def sender_of(channel: Channel) -> Sender:
    """Return what sends to a channel."""
    match channel.to:
        case Webhook():
            return WebhookSender(channel, channel.to)
        case Email():
            return MailSender(channel, channel.to)
        case Apprise():
            return AppriseSender(channel, channel.to)
