"""Every error this project raises on purpose.

* RecommenderError
  x InvalidEvent            an event that breaks the schema
  x InvalidRequest          a query or body that breaks a rule
  x InvalidToken            a read-your-writes token that was not given out by this service
  x NotConfigured           a setting that this command needs is missing
  x Unavailable             Kafka or Redis cannot be reached in time
  x TopicMismatch           a topic is not, or cannot be made, as the settings say
  x UnreadableRecording     a recorded file, or a note of how far it was sent, cannot be read
  x CannotStart             a process on this machine could not be started, and what to do
"""

from __future__ import annotations


class RecommenderError(Exception):
    """The root of all errors below."""


class InvalidEvent(RecommenderError):
    """An event breaks the schema; the text says which member and why."""


class InvalidRequest(RecommenderError):
    """A request breaks a rule; the text says which member and why."""


class InvalidToken(RecommenderError):
    """A read-your-writes token is malformed."""


class NotConfigured(RecommenderError, ValueError):
    """A setting that this command needs is missing; the text names it."""


class Unavailable(RecommenderError):
    """A server this request needs did not answer in time; trying again later may help."""


class CannotStart(RecommenderError):
    """A process on this machine could not be started; the text says why and names a way out."""


class TopicMismatch(RecommenderError):
    """A topic is not, or cannot be made, as the settings say; an operator must decide."""


class UnreadableRecording(RecommenderError):
    """A recorded file is in no known format, or the note of how far it was sent is damaged."""
