"""The widget: the same front end and engine, with the messages of a notebook between them."""

from __future__ import annotations

from typing import Any

from attrib.insights import assets
from attrib.insights.plain import is_object
from attrib.insights.protocol import pack
from attrib.insights.session import Session
from attrib.insights.study import Study
from attrib.insights.workbench import Limits

try:
    import anywidget
    import traitlets
except ImportError as error:
    raise ImportError("the widget needs anywidget: pip install 'attrib[notebook]'") from error

__all__ = ["Widget", "shown"]


class Widget(anywidget.AnyWidget):
    """A study in a notebook, see `attrib.insights.widget`."""

    _esm = assets.bundle()
    _css = assets.text("app.css")
    state = traitlets.Dict().tag(sync=True)
    selection = traitlets.Dict().tag(sync=True)
    result: Any = traitlets.Any(None, allow_none=True)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        widget: Any = self
        widget.on_msg(self._received)

    def close(self) -> None:
        """End the thread of the engine, and the widget."""
        self._session.close()
        super().close()

    def _received(self, widget: Any, content: Any, buffers: Any) -> None:
        self._session.handle(content if is_object(content) else {}, self._emit)

    def _emit(self, message: dict[str, Any]) -> None:
        if message["type"] == "result":
            self.result = message
        packed = pack(message)
        widget: Any = self
        widget.send(packed.header, packed.buffers)


def shown(study: Study, *, debug: bool, limits: Limits | None) -> Widget:
    """A widget with an engine of its own."""
    return Widget(Session(study, limits=limits, debug=debug))
