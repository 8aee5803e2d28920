"""Every error this project raises on purpose.

* RecommenderError
  x InvalidEvent            an event that breaks the schema
  x InvalidRecord           metadata of an item or user that breaks a rule
  x InvalidRequest          a query or body that breaks a rule
  x InvalidToken            a read-your-writes token that this service did not issue
  x TooManyWaiting          the limit of requests that wait for events to take effect
  x Forbidden               a caller may not do this
  x NotConfigured           a setting that this command needs is missing
  x InvalidSetting          a setting has no such name or value, or its server refuses it
  + Unavailable             Kafka or Redis cannot be reached in time
    x Overloaded            a limit of requests or bytes under way is reached
  x Unreadable              messages that Kafka has cannot be decoded
  x MessageRefused          Kafka refuses this message for good
  x TopicMismatch           a topic does not match the settings
  x UnreadableRecording     a recorded file, or the note of its replay, cannot be read
  x ClaimLost               the lease of a job or run was lost
  x CannotStart             a process on this machine could not be started
  x CannotPrepare           data cannot be prepared with these options
  x CannotProvision         a provisioning file breaks a rule, or AWS refuses a resource in it
  x SnapshotRefused         state cannot be saved or restored so, or a snapshot is not whole
  x ObjectNotFound          there is no object at a URL
  x ObjectRefused           access to an object is denied, or its URL is invalid
  + ServiceError            an error that has a name in Amazon Personalize's API
    x InvalidInput          a member breaks a rule of the service
    x InvalidNextToken      a page's token that this service did not issue
    x ResourceNotFound      no resource has this ARN
    x ResourceAlreadyExists a resource has this name already
    x ResourceInUse         the resource is not in a state that allows it
    x LimitExceeded         a quota is used up
    x TooManyTags           a resource would exceed the limit of tags
    x TooManyTagKeys        a request exceeds the limit of tag keys
"""

from __future__ import annotations

from models.secrets import redacted


class RecommenderError(Exception):
    """Base class of all errors below; its text holds no secret."""

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
    """The limit of requests that wait for events is reached; retrying later may help."""


class Forbidden(RecommenderError):
    """A caller may not do this; the text says what it lacks."""


class NotConfigured(RecommenderError, ValueError):
    """A setting that this command needs is missing; the text names it."""


class InvalidSetting(RecommenderError):
    """A setting has no such name or value, or its server refuses it: retrying does not help."""


class Unavailable(RecommenderError):
    """A server did not answer in time; retrying later may help."""


class Overloaded(Unavailable):
    """A limit of work under way is reached: nothing was done; retrying after a second may help."""


class Unreadable(RecommenderError):
    """Messages that Kafka has cannot be decoded: a damaged batch, or a codec not known here.

    Attributes
    ----------
    topic, partition, first, last
        Their position; `last` is their batch's last offset.
    reason
        The cause, in one line.

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
    """Kafka refuses one message for good, as too large or invalid; it takes others."""


class CannotStart(RecommenderError):
    """A process on this machine could not be started; the text has the cause and a remedy."""


class ClaimLost(RecommenderError):
    """The lease of a job or run was lost to another: work since then does not count."""


class TopicMismatch(RecommenderError):
    """A topic does not match the settings, or cannot; an operator must decide."""


class UnreadableRecording(RecommenderError):
    """A recorded file is in no known format, or the note of its replay is damaged."""


class CannotPrepare(RecommenderError):
    """An option does not fit the data, or memory or disk do not suffice; the text has the cause."""


class CannotProvision(RecommenderError):
    """A provisioning file breaks a rule, or AWS refuses a resource in it.

    The text begins with the file's key.
    """


class SnapshotRefused(RecommenderError):
    """State cannot be saved or restored so, or a snapshot is not whole; the text has a remedy."""


class ReshardRefused(RecommenderError):
    """A group cannot be moved to another number of shards so; the text has a remedy."""


class ObjectNotFound(RecommenderError):
    """There is no object at a URL; the text names it and what to check."""


class ObjectRefused(RecommenderError):
    """Access to an object is denied, or its URL is invalid; the text says what to do."""


class ServiceError(RecommenderError):
    """An error that has a name in Amazon Personalize's API.

    >>> ResourceInUse("the solution version is not active yet").code
    'ResourceInUseException'
    """

    @property
    def code(self) -> str:
        """Its name in answers."""
        return f"{type(self).__name__}Exception"


class InvalidInput(ServiceError):
    """A member of the request breaks a rule; the text says which and why."""


class NeedsOneShard(InvalidInput):
    """A group of several shards does not have what was asked for; the text names it."""


def require_one_shard(shards: int, what: str) -> None:
    """Raise `NeedsOneShard` where a group has several; `what` begins a sentence."""
    if shards > 1:
        raise NeedsOneShard(f"{what} needs a group of one shard, and RECOMMENDER_SHARDS={shards}")


class InvalidNextToken(ServiceError):
    """A page's token that this service did not issue."""


class ResourceNotFound(ServiceError):
    """No resource has this ARN."""


class ResourceAlreadyExists(ServiceError):
    """A resource has this name already."""


class ResourceInUse(ServiceError):
    """The resource, or a child of it, is not in a state that allows it."""


class LimitExceeded(ServiceError):
    """A quota is used up; clients retry on their own."""


class TooManyTags(ServiceError):
    """A resource would exceed the limit of tags."""


class TooManyTagKeys(ServiceError):
    """A request exceeds the limit of tag keys."""
