"""Log-ins and changes of accounts, for pages and command line: each is checked, done, told to open pages, and kept."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Collection
from dataclasses import dataclass, replace
from typing import Self

from isotherm.accounts import names
from isotherm.accounts.api_tokens import ApiToken, ApiTokens
from isotherm.accounts.audit import FAILED, Audit
from isotherm.accounts.links import OVER, Kind, Link, Links
from isotherm.accounts.passwords import Passwords
from isotherm.accounts.role import Role
from isotherm.accounts.sessions import Sessions
from isotherm.accounts.throttle import Throttle
from isotherm.accounts.users import User, Users
from isotherm.errors import BadField, SettingsError, Throttled, Unauthorized
from isotherm.settings import Settings
from isotherm.store.client import Client

FIRST_ADMIN = "admin"
_WRONG = "name or password is wrong, or the account is disabled"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks, and from where.

    Attributes:
        name: The user, or empty when nobody has shown who they are.
        address: IP address, or ``cli``.
        agent: What their browser calls itself.
        session: Hash of the session, or empty.
    """

    name: str = ""
    address: str = ""
    agent: str = ""
    session: str = ""


class Accounts:
    """What one may do with accounts. Every method raises Unavailable when the store does not answer."""

    def __init__(self, redis: Client, passwords: Passwords, *, idle_hours: float = 12, hours: float = 168) -> None:
        self.users = Users(redis)
        self.sessions = Sessions(redis, idle_hours=idle_hours, hours=hours)
        self.links = Links(redis)
        self.tokens = ApiTokens(redis)
        self.audit = Audit(redis)
        self._throttle = Throttle(redis)
        self._passwords = passwords

    @classmethod
    def of(cls, redis: Client, settings: Settings) -> Self:
        """Return the accounts of a store, with the time-outs that the settings say."""
        return cls(redis, Passwords(), idle_hours=settings.session_idle_hours, hours=settings.session_hours)

    async def create_first(self) -> str | None:
        """Create the first admin where there is no user; returns their password, which works once, or None."""
        if await self.users.count():
            return None
        password = secrets.token_urlsafe(12)
        first = User(FIRST_ADMIN, Role.ADMIN, password=await self._passwords.hash(password), must_change=True)
        if not await self.users.create(first, only_if_first=True):
            return None
        await self.audit.write("system", "create user", FIRST_ADMIN, detail="the first admin")
        return password

    async def log_in(self, name: str, password: str, actor: Actor) -> str:
        """Begin a session; returns its id.

        Raises:
            Throttled: there were too many attempts; nothing was hashed.
            Unauthorized: name or password is wrong, or the account is disabled: it is not said which.
        """
        try:
            known = names.user_name(name)
        except BadField:
            known = ""
        try:
            await self._throttle.attempt(known, actor.address)
        except Throttled as error:
            await self.audit.refuse(known, "log in", address=actor.address, detail=str(error))
            raise
        user = await self.users.get(known) if known else None
        if not await self._passwords.matches(user.password if user else None, password) or user is None or user.is_disabled:
            # The name as typed may be a password typed into the wrong field: it is kept only if it is a user's.
            why = "no such user" if user is None else "disabled" if user.is_disabled else "wrong password"
            await self.audit.refuse(user.name if user else "", "log in", address=actor.address, detail=why)
            raise Unauthorized(_WRONG)
        await self._throttle.succeeded(user.name, actor.address)
        if self._passwords.is_outdated(user.password):
            hashed = await self._passwords.hash(password)
            await self.users.set_password(user.name, hashed, must_change=user.must_change)
        return await self.begin(user.name, actor)

    async def begin(self, name: str, actor: Actor, how: str = "") -> str:
        """Begin a session of a user who has shown who they are; the one that the browser had before ends."""
        if actor.session and actor.name:
            await self.sessions.end(actor.name, actor.session)
        identity = await self.sessions.begin(name, address=actor.address, agent=actor.agent)
        await self.users.note_log_in(name)
        await self.audit.write(name, "log in", address=actor.address, detail=how)
        return identity

    async def log_out(self, actor: Actor) -> None:
        """End the session of the actor."""
        await self.sessions.end(actor.name, actor.session)
        await self.audit.write(actor.name, "log out", address=actor.address)

    async def end_session(self, hashed: str, actor: Actor) -> None:
        """End one of the actor's sessions, on another machine perhaps.

        Raises:
            SettingsError: it is over, or somebody else's.
        """
        if not await self.sessions.end(actor.name, hashed):
            raise SettingsError("this session is over already")
        await self.audit.write(actor.name, "end session", hashed[:8], address=actor.address)

    async def change_password(self, old: str, new: str, actor: Actor) -> str:
        """Change the actor's own password, and end all of their sessions; returns the id of a new one.

        Raises:
            BadField: ``old`` is wrong, or ``new`` cannot be chosen.
            Throttled: too many attempts.
        """
        user = await self.users.existing(actor.name)
        names.password(new, user.name, "new")
        await self._throttle.attempt(user.name, actor.address)
        if not await self._passwords.matches(user.password, old):
            await self.audit.write(actor.name, "change password", user.name, address=actor.address, outcome=FAILED)
            raise BadField("old", "this is not your password")
        if old == new:
            raise BadField("new", "this is the password that you have; choose another")
        await self._set(user.name, new)
        await self._throttle.succeeded(user.name, actor.address)
        await self.audit.write(actor.name, "change password", user.name, address=actor.address)
        return await self.sessions.begin(user.name, address=actor.address, agent=actor.agent)

    async def register(self, name: str, password: str, actor: Actor, link: str | None) -> User:
        """Create the account of somebody new: a viewer, or what the invitation says.

        Raises:
            BadField: the name is taken or none, the password cannot be chosen, or the link is over.
            Throttled: too many attempts.
        """
        known = names.user_name(name)
        names.password(password, known)
        await self._throttle.attempt_from(actor.address)
        if link is not None and await self.invited(link) is None:
            await self.links.take(link, "invite")
            raise BadField("link", OVER)
        if await self.users.get(known) is not None:
            raise BadField("name", f"there is a user {known} already; choose another name")
        hashed = await self._passwords.hash(password)
        invitation = None if link is None else await self.links.take(link, "invite")
        user = User(known, Role.VIEWER if invitation is None else Role.of(invitation.role), password=hashed)
        await self.users.create(user)
        by = "registered" if invitation is None else f"invited by {invitation.by}"
        await self.audit.write(known, "create user", known, address=actor.address, detail=f"{user.role.word}, {by}")
        return user

    async def invited(self, link: str) -> Link | None:
        """Return what an invitation is good for; None when it is over, was used, or who made it is no admin any more."""
        found = await self.links.look(link, "invite")
        return found if found is not None and await self._is_admins(found) else None

    async def resettable(self, link: str) -> str | None:
        """Return whose password a link resets.

        None when it is over, was used, the account has changed since, or who made it is no admin any more.
        """
        found = await self.links.look(link, "reset")
        if found is None or not await self._is_admins(found):
            return None
        user = await self.users.get(found.name)
        return user.name if user is not None and user.state == found.account else None

    async def reset_password(self, link: str, new: str, actor: Actor) -> str:
        """Choose a password by a link, and end all sessions; returns whose it is.

        Raises:
            BadField: the password cannot be chosen, or the link is over.
            Throttled: too many attempts.
        """
        await self._throttle.attempt_from(actor.address)
        name = await self.resettable(link)
        if name is not None:
            names.password(new, name)
        taken = await self.links.take(link, "reset")
        if name is None:
            raise BadField("link", OVER)
        await self._set(name, new)
        await self.audit.write(name, "reset password", name, address=actor.address, detail=f"link made by {taken.by}")
        return name

    async def create(self, name: str, role: Role, actor: Actor) -> str:
        """Create a user; returns a password that works once.

        Raises:
            BadField: the name is taken or none.
        """
        known = names.user_name(name)
        password = secrets.token_urlsafe(12)
        hashed = await self._passwords.hash(password)
        await self.users.create(User(known, role, password=hashed, must_change=True))
        await self.audit.write(actor.name, "create user", known, address=actor.address, detail=role.word)
        return password

    async def link(self, kind: Kind, target: str, actor: Actor) -> str:
        """Make a link; returns its path.

        Args:
            kind: ``invite``, and ``target`` is a role; or ``reset``, and ``target`` is a user.
            target: See there.
            actor: Who makes it.

        Raises:
            SettingsError: there is no such role or user, or the user's password is not ours.
        """
        if kind == "invite":
            made = Link("invite", "", Role.of(target).word, actor.name)
        else:
            user = await self.users.existing(target)
            if user.subject:
                raise SettingsError(f"{target} logs in with the identity provider, which keeps the password")
            made = Link("reset", target, "", actor.name, user.state)
        path = await self.links.make(made)
        await self.audit.write(actor.name, f"make {kind} link", target, address=actor.address)
        return path

    async def create_token(
        self, name: str, purpose: str, scopes: Collection[str], days: int, actor: Actor
    ) -> tuple[str, ApiToken]:
        """Make an API token of a user; see `ApiTokens.create`."""
        token, made = await self.tokens.create(name, purpose, scopes, days)
        detail = f"{made.id}, {' '.join(sorted(made.scopes))}, {days} days"
        await self.audit.write(actor.name, "make API token", name, address=actor.address, detail=detail)
        return token, made

    async def revoke_token(self, name: str, id: str, actor: Actor) -> ApiToken:
        """Make an API token of a user invalid; see `ApiTokens.revoke`."""
        made = await self.tokens.revoke(name, id)
        await self.audit.write(actor.name, "revoke API token", name, address=actor.address, detail=made.id)
        return made

    async def set_role(self, name: str, role: Role, actor: Actor) -> None:
        """Change what a user may do; pages that they have open are opened anew.

        Raises:
            SettingsError: there is no such user, or no admin would be left.
        """
        await self._act(self.users.change(name, role=role), "change role", name, actor, role.word)
        await self.sessions.kick(name)

    async def set_disabled(self, name: str, is_disabled: bool, actor: Actor) -> None:
        """Keep a user out and end their sessions, or let them in again.

        Raises:
            SettingsError: there is no such user, or no admin would be left.
        """
        what = "disable user" if is_disabled else "enable user"
        await self._act(self.users.change(name, is_disabled=is_disabled), what, name, actor)
        if is_disabled:
            await self.sessions.end_all(name)

    async def change(
        self, name: str, role: Role | None, is_disabled: bool | None, actor: Actor, *, seen: User | None = None
    ) -> None:
        """Change what is not None of a user, all of it or nothing; if one is given, only if they are as they were seen.

        Raises:
            SettingsError: there is no such user, or no admin would be left.
            Changed: they are not as they were seen.
        """
        able = "" if is_disabled is None else "disable user" if is_disabled else "enable user"
        work = self.users.change(name, role=role, is_disabled=is_disabled, seen=seen)
        what, detail = (able, "") if role is None else ("change role", f"{role.word}, {able}".removesuffix(", "))
        await self._act(work, what, name, actor, detail)
        await (self.sessions.end_all(name) if is_disabled else self.sessions.kick(name))

    async def remove(self, name: str, actor: Actor, *, seen: User | None = None) -> None:
        """Forget a user and end their sessions; if one is given, only if they are as they were seen.

        Raises:
            SettingsError: there is no such user, or no admin would be left.
            Changed: they are not as they were seen.
        """
        await self._act(self.users.remove(name, seen=seen), "remove user", name, actor)
        await self.sessions.end_all(name)

    async def enter(self, user: User, actor: Actor) -> str:
        """Begin a session of a user whom the identity provider vouches for; returns its id.

        They are created when they are new, and have the role that the provider says now.

        Raises:
            Unauthorized: somebody else has the name, or the account is disabled.
        """
        held = await self.users.get(user.name)
        if held is None:
            await self.users.create(replace(user, password=""))
            await self.audit.write(user.name, "create user", user.name, address=actor.address, detail="identity provider")
        elif held.subject != user.subject or held.is_disabled:
            why = "disabled" if held.is_disabled else "the name belongs to another account"
            await self.audit.refuse(user.name, "log in", address=actor.address, detail=why)
            raise Unauthorized(f"{user.name} cannot log in: {why}; ask an admin")
        elif held.role is not user.role:
            await self.set_role(user.name, user.role, replace(actor, name="identity provider"))
        return await self.begin(user.name, actor, "identity provider")

    async def _is_admins(self, link: Link) -> bool:
        """Tell whether who made a link may make one now; of the command line that is not asked."""
        try:
            maker = await self.users.get(names.user_name(link.by))
        except BadField:
            return True
        return maker is not None and not maker.is_disabled and maker.role is Role.ADMIN

    async def _set(self, name: str, password: str) -> None:
        await self.users.set_password(name, await self._passwords.hash(password))
        await self.sessions.end_all(name)

    async def _act(self, work: Awaitable[None], what: str, name: str, actor: Actor, detail: str = "") -> None:
        """Do something to a user, and keep that it was done, or tried."""
        try:
            await work
        except SettingsError as error:
            await self.audit.write(actor.name, what, name, address=actor.address, outcome=FAILED, detail=str(error))
            raise
        await self.audit.write(actor.name, what, name, address=actor.address, detail=detail)
