/** Parts that several tabs of the console have. */

import type { ComponentChildren, JSX } from "preact";
import { useState } from "preact/hooks";
import { Picture } from "../pictures/picture";
import { describe } from "../shop/catalogue";

/** Work whose errors are shown: the message, and a function that runs some work. */
export const useGuard = (): [string, (work: () => Promise<void>) => void] => {
  const [error, setError] = useState("");
  const guard = (work: () => Promise<void>): void => {
    setError("");
    work().catch((problem: unknown) => setError((problem as Error).message));
  };
  return [error, guard];
};

/** A message for what went wrong; empty, it takes no room. */
export const Problem = ({ text }: { text: string }): JSX.Element => (
  <p class="error" id="error" role="alert">{text}</p>
);

/** An item with its picture; a button where something can be done with it. */
export const ItemName = ({ itemId, onPick }: {
  itemId: string; onPick?: (itemId: string) => void;
}): JSX.Element => {
  const known = describe(itemId);
  const shown = (
    <>
      <Picture {...known} />
      <span><strong>{known.name}</strong> <small>{itemId}</small></span>
    </>
  );
  return onPick ? (
    <button type="button" class="item" onClick={() => onPick(itemId)}>{shown}</button>
  ) : (
    <span class="item">{shown}</span>
  );
};

/** A labelled field of a form. */
export const Field = ({ label, children }: {
  label: string; children: ComponentChildren;
}): JSX.Element => (
  <label class="field"><span>{label}</span>{children}</label>
);

/** A button that asks before it does something that cannot be taken back. */
export const Asking = ({ text, question, onYes }: {
  text: string; question: string; onYes: () => void;
}): JSX.Element => {
  const [isAsked, setAsked] = useState(false);
  if (!isAsked) return <button type="button" onClick={() => setAsked(true)}>{text}</button>;
  return (
    <span class="asking" role="group" aria-label={question}>
      {question}{" "}
      <button type="button" class="danger" onClick={() => { setAsked(false); onYes(); }}>Yes</button>
      <button type="button" onClick={() => setAsked(false)}>No</button>
    </span>
  );
};
