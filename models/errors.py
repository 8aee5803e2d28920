"""Every error this project raises on purpose.

* RecommenderError
  x InvalidEvent            an event that breaks the schema
  x InvalidRecord           metadata of an item or user that breaks a rule
  x InvalidRequest          a query or body that breaks a rule
  x InvalidToken            a read-your-writes token that was not given out by this service
  x TooManyWaiting          as many requests wait for events to take effect as may
  x NotConfigured           a setting that this command needs is missing
  x InvalidSetting          a setting has no such name or value, or its server refuses it
  + Unavailable             Kafka or Redis cannot be reached in time
    x Overloaded            too much is under way already
  x Unreadable              messages that Kafka has cannot be decoded
  x MessageRefused          Kafka takes other messages, but never this one
  x TopicMismatch           a topic is not, or cannot be made, as the settings say
  x UnreadableRecording     a recorded file, or a note of how far it was sent, cannot be read
  x ClaimLost               a job was claimed by another since, or is no more
  x CannotStart             a process on this machine could not be started, and what to do
  x CannotPrepare           data cannot be prepared as asked, and what to do
  x CannotProvision         a provisioning file breaks a rule, or AWS refuses what it asks for
  x ObjectNotFound          nothing lies at an object's URL
  x ObjectRefused           an object may not be read or written, or its URL is none
  + ServiceError            an error that Amazon Personalize's API has a name for
    x InvalidInput          a member breaks a rule of the service
    x InvalidNextToken      a page's token that was not given out by this service
    x ResourceNotFound      no resource has this ARN
    x ResourceAlreadyExists a resource has this name already
    x ResourceInUse         the resource is not in a state that allows it
    x LimitExceeded         there are as many as there may be
    x TooManyTags           a resource would have more tags than it may
    x TooManyTagKeys        more tag keys are named than may be
"""

from __future__ import annotations

from models.secrets import redacted


class RecommenderError(Exception):
    """The root of all errors below; its text holds no secret."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(redacted(arg) if isinstance(arg, str) else arg for arg in args))


class InvalidEvent(RecommenderError):
    """An event breaks the schema; the text says which member and why."""


class InvalidRecord(RecommenderError):
    """Metadata of an item or user breaks a rule; the text says which member and why."""


class InvalidRequest(RecommenderError):
    """A request breaks a rule; the text says which member and why."""


class InvalidToken(RecommenderError):
    """A read-your-writes token is malformed."""


class TooManyWaiting(RecommenderError):
    """As many requests wait for events to take effect as may; trying again later may help."""


class NotConfigured(RecommenderError, ValueError):
    """A setting that this command needs is missing; the text names it."""


class InvalidSetting(RecommenderError):
    """A setting has no such name or value, or its server refuses it: waiting does not help."""


class Unavailable(RecommenderError):
    """A server this request needs did not answer in time; trying again later may help."""


class Overloaded(Unavailable):
    """As much is under way as may be: nothing was done; trying again after a second may help."""


class Unreadable(RecommenderError):
    """Messages that Kafka has cannot be decoded: a damaged batch, or a codec not known here.

    Attributes
    ----------
    topic, partition, first, last
        Where they are; `last` is their batch's last offset.
    reason
        Why, in a line.

    Examples
    --------
    >>> print(Unreadable("events.clicks", 3, 7, 9, "its checksum is wrong"))
    events.clicks/3 cannot be read at offsets 7 to 9: its checksum is wrong
    """

    def __init__(self, topic: str, partition: int, first: int, last: int, reason: str) -> None:
        offsets = f"offsets {first} to {last}" if last > first else f"offset {first}"
        super().__init__(f"{topic}/{partition} cannot be read at {offsets}: {reason}")
        self.topic, self.partition = topic, partition
        self.first, self.last = first, last
        self.reason = reason


class MessageRefused(RecommenderError):
    """Kafka refuses one message for good, as too large or no valid record; others pass."""


class CannotStart(RecommenderError):
    """A process on this machine could not be started; the text says why and names a way out."""


class ClaimLost(RecommenderError):
    """A job was claimed by another since, or is no more: what was done for it does not count."""


class TopicMismatch(RecommenderError):
    """A topic is not, or cannot be made, as the settings say; an operator must decide."""


class UnreadableRecording(RecommenderError):
    """A recorded file is in no known format, or the note of how far it was sent is damaged."""


class CannotPrepare(RecommenderError):
    """An option does not fit the data, or memory or disk do not suffice; the text says more."""


class CannotProvision(RecommenderError):
    """A provisioning file breaks a rule, or AWS refuses what it asks for.

    The text begins with the file's key.
    """


class ObjectNotFound(RecommenderError):
    """Nothing lies at an object's URL; the text names it and what to check."""


class ObjectRefused(RecommenderError):
    """An object may not be read or written, or its URL is none; the text says what to do."""


class ServiceError(RecommenderError):
    """An error that Amazon Personalize's API has a name for.

    >>> ResourceInUse("the solution version is not active yet").code
    'ResourceInUseException'
    """

    @property
    def code(self) -> str:
        """The name that clients know it by."""
        return f"{type(self).__name__}Exception"


class InvalidInput(ServiceError):
    """A member of the request breaks a rule; the text says which and why."""


class InvalidNextToken(ServiceError):
    """A page's token was not given out by this service."""


class ResourceNotFound(ServiceError):
    """No resource has this ARN."""


class ResourceAlreadyExists(ServiceError):
    """A resource has this name already."""


class ResourceInUse(ServiceError):
    """The resource, or one that hangs on it, is not in a state that allows it."""


class LimitExceeded(ServiceError):
    """There are as many of these as there may be; clients try again on their own."""


class TooManyTags(ServiceError):
    """A resource would have more tags than it may."""


class TooManyTagKeys(ServiceError):
    """More tag keys are named than may be."""
