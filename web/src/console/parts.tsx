/** Parts that several tabs of the console have. */

import type { ComponentChildren, JSX } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { Picture } from "../pictures/picture";
import { describe } from "../shop/catalogue";
import { addressOf } from "./tab";

/** Work whose errors are shown: the message, and a function that runs some work. */
export const useGuard = (): [string, (work: () => Promise<void>) => void] => {
  const [error, setError] = useState("");
  // A message stays until the work succeeds: while the API is away it does not flicker.
  const guard = (work: () => Promise<void>): void =>
    void work().then(() => setError(""), (problem: unknown) => setError((problem as Error).message));
  return [error, guard];
};

/** A message for what went wrong; empty, it takes no room. */
export const Problem = ({ text }: { text: string }): JSX.Element => (
  <p class="error" role="alert">{text}</p>
);

/** An item with its picture: a button where it can be picked, else a link to all about it. */
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
    <a class="item" href={addressOf("items", itemId)}>{shown}</a>
  );
};

/** A button that copies a text; none where the browser has no clipboard for the page. */
export const Copy = ({ text, what }: { text: string; what: string }): JSX.Element | null => {
  const [copied, setCopied] = useState("");
  if (!navigator.clipboard) return null;
  return (
    <button
      type="button" class="quiet" aria-label={`Copy ${what}`}
      onClick={() => void navigator.clipboard.writeText(text).then(() => setCopied(text), () => setCopied(""))}
    >
      {copied === text ? "Copied" : "Copy"}
    </button>
  );
};

/** A labelled field of a form. */
export const Field = ({ label, children }: {
  label: string; children: ComponentChildren;
}): JSX.Element => (
  <label class="field"><span>{label}</span>{children}</label>
);

/** A number and what it counts. */
export const counted = (n: number, noun: string): string =>
  `${n.toLocaleString("en")} ${n === 1 ? noun : `${noun}s`}`;

/** The question in place of a button; it has the focus, and Escape says no. */
const Question = ({ text, isMain, onYes, onNo }: {
  text: string; isMain: boolean; onYes: () => void; onNo: () => void;
}): JSX.Element => {
  const no = useRef<HTMLButtonElement>(null);
  useLayoutEffect(() => no.current?.focus(), []);
  return (
    <span
      class="asking" role="group" aria-label={text}
      onKeyDown={(event) => { if (event.key === "Escape") onNo(); }}
    >
      {text}{" "}
      <button type="button" class={isMain ? "main yes" : "danger yes"} onClick={onYes}>Yes</button>
      <button type="button" ref={no} onClick={onNo}>No</button>
    </span>
  );
};

/** A button, and whether its question is shown in its place; it has the focus again after the answer. */
const useQuestion = (): { button: { current: HTMLButtonElement | null }; isAsked: boolean; setAsked: (isAsked: boolean) => void } => {
  const button = useRef<HTMLButtonElement>(null);
  const wasAsked = useRef(false);
  const [isAsked, setAsked] = useState(false);
  useLayoutEffect(() => {
    if (wasAsked.current && !isAsked) button.current?.focus();
    wasAsked.current = isAsked;
  }, [isAsked]);
  return { button, isAsked, setAsked };
};

/** A button that asks before it changes something. */
export const Asking = ({ text, question, onYes, isMain = false, id }: {
  text: string; question: string; onYes: () => void; isMain?: boolean; id?: string;
}): JSX.Element => {
  const { button, isAsked, setAsked } = useQuestion();
  if (!isAsked)
    return <button type="button" ref={button} id={id} class={isMain ? "main" : undefined} onClick={() => setAsked(true)}>{text}</button>;
  return <Question text={question} isMain={isMain} onYes={() => { setAsked(false); onYes(); }} onNo={() => setAsked(false)} />;
};

/** A form that asks, once its fields are valid, before it changes something. */
export const AskingForm = ({ text, question, onYes, children, id, isDisabled = false }: {
  text: string; question: string; onYes: () => void; children: ComponentChildren; id?: string; isDisabled?: boolean;
}): JSX.Element => {
  const { button, isAsked, setAsked } = useQuestion();
  return (
    <form class="question" id={id} onSubmit={(event) => { event.preventDefault(); setAsked(true); }}>
      {children}
      {isAsked ? (
        <Question text={question} isMain onYes={() => { setAsked(false); onYes(); }} onNo={() => setAsked(false)} />
      ) : (
        <button ref={button} class="main" disabled={isDisabled}>{text}</button>
      )}
    </form>
  );
};

/** Things by their names, one of which is picked. */
export const Choices = <T extends { name: string }>({ all, picked, onPick, children }: {
  all: readonly T[]; picked: string | undefined; onPick: (one: T) => void; children: (one: T) => ComponentChildren;
}): JSX.Element => (
  <ul class="choices">
    {all.map((one) => (
      <li key={one.name}>
        <button type="button" aria-pressed={picked === one.name} onClick={() => onPick(one)}>
          <strong>{one.name}</strong> <small>{children(one)}</small>
        </button>
      </li>
    ))}
  </ul>
);

/** What the API takes as a name of something that is saved. */
const NAME = "[A-Za-z0-9][A-Za-z0-9_\\-]*";

/** The field of such a name. */
export const NameInput = ({ value, onChange, maxLength = 64, ...rest }: {
  value: string; onChange: (name: string) => void; maxLength?: number; placeholder?: string; "aria-label"?: string;
}): JSX.Element => (
  <input
    {...rest} value={value} required pattern={NAME} maxLength={maxLength} spellcheck={false} autocomplete="off"
    onInput={(event) => onChange(event.currentTarget.value)}
  />
);

/** A figure with its name. */
export const Tile = ({ name, value, note }: { name: string; value: string; note?: ComponentChildren }): JSX.Element => (
  <div class="tile"><dt>{name}</dt><dd>{value}{note && <small>{note}</small>}</dd></div>
);
