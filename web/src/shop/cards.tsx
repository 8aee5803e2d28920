/** Cards in a row that move to their places, with the reasons of each on demand. */

import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Recommended, Recommender } from "recommender";
import { Picture } from "../pictures/picture";
import { describe, priced } from "./catalogue";
import type { Row } from "./shopper";
import { asSignal, inWords, why } from "./why";

const MOVE_MS = 600;
const isCalm = (): boolean => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** What can be done with a card. */
export interface CardActions {
  look: (itemId: string) => void;
  dislike?: ((itemId: string) => void) | undefined;
}

const Share = ({ text, share, title }: {
  text: string; share: number | undefined; title?: string;
}): JSX.Element => (
  <li title={title}>
    <span>{text}</span>
    {share !== undefined && (
      <>
        <b>{(share * 100).toFixed(0)} %</b>
        <i style={{ width: `${Math.max(2, share * 100)}%` }} />
      </>
    )}
  </li>
);

const Contributions = ({ item, id }: { item: Recommended; id: string }): JSX.Element => {
  const reasons = item.reasons ?? [];
  const named = reasons.reduce((sum, one) => sum + (one.share ?? 0), 0);
  const rest = named > 0 && named < 0.995 ? 1 - named : 0;
  return (
    <ul class="shares" id={id} aria-label="Shares of the score" tabIndex={0}>
      {reasons.map((one) => <Share key={one.source + one.itemId} text={asSignal(one)} title={inWords(one)} share={one.share} />)}
      {rest > 0 && <Share text="Other signals" share={rest} />}
    </ul>
  );
};

const Moved = ({ move }: { move: number | "new" | undefined }): JSX.Element | null => {
  if (move === undefined) return null;
  const text = move === "new" ? "new" : move > 0 ? `▲ ${move}` : `▼ ${-move}`;
  return <span class={`moved ${move === "new" || move > 0 ? "up" : "down"}`}>{text}</span>;
};

const Card = ({ item, row, rowId, actions }: {
  item: Recommended; row: Row; rowId: string; actions: CardActions;
}): JSX.Element => {
  const [isOpen, setOpen] = useState(false);
  const known = describe(item.itemId);
  const sharesId = `${rowId}-${item.itemId}-shares`;
  const text = why(item.reasons);
  return (
    <li class={isOpen ? "card open" : "card"} data-item={item.itemId}>
      <div class="face">
      <button type="button" class="look" onClick={() => actions.look(item.itemId)}>
        <Picture {...known} />
        <span class="name" title={known.name}>{known.name}</span>
        <span class="price">{priced(known.price)}</span>
      </button>
      <Moved move={row.moves.get(item.itemId)} />
      {isOpen && <Contributions item={item} id={sharesId} />}
      </div>
      {text && (
        <button
          type="button" class="reason" aria-expanded={isOpen} aria-controls={sharesId}
          onClick={() => setOpen(!isOpen)}
        >
          {text}
        </button>
      )}
      {actions.dislike && (
        <button
          type="button" class="quiet hide" aria-label={`Not for me: ${known.name}`}
          title="Not for me" onClick={() => actions.dislike?.(item.itemId)}
        >
          ✕
        </button>
      )}
    </li>
  );
};

/** A list of cards under a heading. */
export const Cards = ({ id, title, note, row, client, actions, isSmall = false, listId }: {
  id: string;
  title: string;
  note?: string | undefined;
  row: Row;
  client: Recommender;
  actions: CardActions;
  isSmall?: boolean;
  /** Id of the answer that the cards are of, to count those that were seen. */
  listId?: string | undefined;
}): JSX.Element => {
  const list = useRef<HTMLUListElement>(null);
  const places = useRef(new Map<string, DOMRect>());
  // Where the focus was last in this list: its card may go, and the focus must not go with it.
  const focused = useRef<{ element: HTMLElement; place: number } | null>(null);
  const noteFocus = (event: FocusEvent): void => {
    const element = event.target as HTMLElement;
    const cards = [...list.current!.children];
    focused.current = { element, place: cards.indexOf(element.closest(".card")!) };
  };
  const noteLeave = (event: FocusEvent): void => {
    // Without a next element the focused one was removed, or the whole page lost the focus.
    if (event.relatedTarget) focused.current = null;
  };

  // First, last, invert, play: where a card was is where its way to its place begins.
  useLayoutEffect(() => {
    const now = new Map<string, DOMRect>();
    const { left, top } = list.current!.getBoundingClientRect();
    for (const card of list.current!.querySelectorAll<HTMLElement>(":scope > .card")) {
      const box = card.getBoundingClientRect();
      const place = new DOMRect(box.x - left, box.y - top, box.width, box.height);
      now.set(card.dataset.item!, place);
      const old = places.current.get(card.dataset.item!);
      if (isCalm() || !places.current.size) continue;
      const frames = old
        ? [{ transform: `translate(${old.x - place.x}px, ${old.y - place.y}px)` }, { transform: "none" }]
        : [{ opacity: 0, transform: "scale(.85)" }, { opacity: 1, transform: "none" }];
      if (!old || old.x !== place.x || old.y !== place.y)
        card.animate(frames, { duration: MOVE_MS, easing: "cubic-bezier(.2,.8,.2,1)" });
    }
    places.current = now;
    const { element, place } = focused.current ?? {};
    if (element && !element.isConnected && document.activeElement === document.body) {
      const cards = list.current!.querySelectorAll<HTMLElement>(".look");
      cards[Math.min(place!, cards.length - 1)]?.focus({ preventScroll: true });
    }
  }, [row]);

  useEffect(() => {
    if (!listId || !list.current) return undefined;
    const cards = [...list.current.querySelectorAll<HTMLElement>(":scope > .card")];
    for (const card of cards) client.observe(card, card.dataset.item!, listId);
    return () => cards.forEach((card) => client.unobserve(card));
  }, [row, listId, client]);

  return (
    <section class={isSmall ? "row small" : "row"} id={id} aria-labelledby={`${id}-title`}>
      <h2 id={`${id}-title`}>{title}</h2>
      {note && <p class="note">{note}</p>}
      <ul ref={list} onFocusIn={noteFocus} onFocusOut={noteLeave}>
        {row.items.map((item) => (
          <Card
            key={item.itemId} item={item} row={row} rowId={id} actions={actions}
          />
        ))}
      </ul>
    </section>
  );
};
