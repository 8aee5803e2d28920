/** The strip: the way of the last event, from the click to the changed list, with its times. */

import type { JSX } from "preact";
import type { Shopper } from "./shopper";

const ms = (value: number): string => `${value < 10 ? value.toFixed(1) : value.toFixed(0)} ms`;

const Step = ({ name, at, id, isDone }: {
  name: string; at?: number | undefined; id: string; isDone: boolean;
}): JSX.Element => (
  <li class={isDone ? "done" : ""} id={id}>
    <span>{name}</span> {at !== undefined && <b>{ms(at)}</b>}
  </li>
);

/** The way of the last event of a shopper. */
export const Strip = ({ shopper }: { shopper: Shopper }): JSX.Element => {
  const { path, forYou } = shopper;
  const n = forYou.moves.size;
  const shown = !path
    ? ""
    : path.isLate
      ? "not in effect yet"
      : path.visibleMs === undefined
        ? "…"
        : path.isChanged
          ? `visible: ${n} of ${forYou.items.length} cards moved`
          : "in effect, with the same list";
  return (
    <footer class="strip" aria-live="polite" aria-label="The way of your last event">
      {path ? (
        <ol>
          <li class="what done">{path.what}</li>
          <Step id="accepted" name="accepted" at={path.acceptedMs} isDone={!!path.acceptedMs} />
          <Step
            id="kafka" isDone={!!path.place}
            name={
              path.place
                ? `Kafka: ${path.place.topic}, partition ${path.place.partition}, offset ${path.place.offset}`
                : "Kafka"
            }
          />
          <Step id="applied" name="applied" at={path.appliedMs} isDone={!!path.appliedMs} />
          <Step id="visible" name={shown} at={path.visibleMs} isDone={path.visibleMs !== undefined} />
          {path.undoable && path.visibleMs !== undefined && (
            <li class="undo"><button type="button" class="quiet" onClick={() => void shopper.undo()}>Undo</button></li>
          )}
        </ol>
      ) : (
        <p>Look at something: its way through Kafka into your lists will stand here.</p>
      )}
    </footer>
  );
};
