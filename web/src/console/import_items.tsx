/** Import of items from a file, with a preview of the columns before anything is sent. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { ask } from "./ask";
import { AskingForm, Field, Problem, counted, useGuard } from "./parts";
import { type Table, type Value, idColumn, tableOf } from "./table_file";

const MAX_BYTES = 20 * 1024 * 1024;
const AT_ONCE = 1000;
const PREVIEWED = 5;
const SHOWN_REFUSED = 50;

interface Batch {
  accepted: number;
  refused: number;
  errors: { line: number; message: string }[];
}
/** A row of the file that was not taken, by its number from 1. */
interface Refused {
  row: number;
  message: string;
}

/** What a column holds: the kinds of its values, and how many are empty. */
const kindOf = (table: Table, column: string): string => {
  const values = table.rows.map((row) => row[column] ?? null);
  const kinds = new Set(values.filter((value) => value !== null).map((value) =>
    typeof value === "object" ? "not a plain value" : typeof value === "string" ? "text" : typeof value === "number" ? "number" : "yes or no"));
  const empty = values.filter((value) => value === null).length;
  return `${[...kinds].join(", ") || "nothing"}${empty ? `, ${empty.toLocaleString("en")} empty` : ""}`;
};

/** A form that reads a file, shows what it would put, and puts it. */
export const Import = ({ onDone }: { onDone: () => void }): JSX.Element => {
  const [name, setName] = useState("");
  const [table, setTable] = useState<Table | null>(null);
  const [id, setId] = useState("");
  const [taken, setTaken] = useState<ReadonlySet<string>>(new Set());
  const [done, setDone] = useState("");
  const [refused, setRefused] = useState<Refused[]>([]);
  const [isSending, setSending] = useState(false);
  const [error, guard] = useGuard();
  const open = async (file: File | undefined): Promise<void> => {
    setTable(null);
    setDone("");
    setRefused([]);
    if (!file) return;
    if (file.size > MAX_BYTES) throw new Error("The file has more than 20 MB: use recommender items import.");
    const found = tableOf(await file.text());
    if (!found.rows.length) throw new Error("The file holds no rows.");
    const column = idColumn(found.columns);
    setName(file.name);
    setTable(found);
    setId(column);
    setTaken(new Set(found.columns.filter((one) => one !== column)));
  };
  const send = async (): Promise<void> => {
    if (!table) return;
    setSending(true);
    try {
      const records = table.rows.map((row) => ({
        itemId: String(row[id] ?? ""),
        properties: Object.fromEntries(
          Object.entries(row).filter(([column, value]) => taken.has(column) && column !== id && value !== null),
        ) as Record<string, Value>,
      }));
      const rows = records.map((_, place) => place + 1).filter((row) => records[row - 1]!.itemId !== "");
      const without = records.length - rows.length;
      let accepted = 0;
      const bad: Refused[] = [];
      for (let at = 0; at < rows.length; at += AT_ONCE) {
        const some = rows.slice(at, at + AT_ONCE);
        const lines = some.map((row) => JSON.stringify(records[row - 1])).join("\n");
        const { body } = await ask<Batch>("POST", "/items/batch", lines);
        accepted += body.accepted;
        bad.push(...body.errors.map(({ line, message }) => ({ row: some[line - 1] ?? 0, message })));
        setRefused([...bad]);
        setDone(`${Math.min(at + AT_ONCE, rows.length).toLocaleString("en")} of ${rows.length.toLocaleString("en")} items sent`);
      }
      const n = rows.length - accepted;
      setDone(
        `Put of ${name}: ${counted(accepted, "item")}.${n ? ` Refused: ${counted(n, "row")}.` : ""}` +
          (without ? ` Left out, without an id: ${counted(without, "row")}.` : ""),
      );
      setTable(null);
      onDone();
    } finally {
      setSending(false);
    }
  };
  return (
    <section class="panel" aria-labelledby="import-title" id="import">
      <h2 id="import-title">Import</h2>
      <p class="note">CSV with a heading, or JSON Lines. A row replaces all properties of its item. Feeds of Google Merchant, Shopify's products and
        Parquet: <code>recommender items import FILE</code>.</p>
      <p class="line">
        <input
          type="file" aria-label="File of items" accept=".csv,.tsv,.txt,.jsonl,.ndjson,.json"
          onChange={(event) => {
            const file = event.currentTarget.files?.[0];
            guard(() => open(file));
          }}
        />
      </p>
      <Problem text={error} />
      {table && (
        <AskingForm
          id="put" text={`Put ${counted(table.rows.length, "item")}…`} isDisabled={isSending}
          question={`Put ${counted(table.rows.length, "item")}, in place of all their properties?`} onYes={() => guard(send)}
        >
          <Field label="Column with the item's id">
            <select value={id} onChange={(event) => setId(event.currentTarget.value)}>
              {table.columns.map((column) => <option key={column}>{column}</option>)}
            </select>
          </Field>
          <div class="wide" role="region" aria-label="Preview of the columns" tabIndex={0}>
            <table id="preview">
              <thead><tr><th>Column</th><th>Holds</th>{table.rows.slice(0, PREVIEWED).map((_, row) => <th key={row}>Row {row + 1}</th>)}</tr></thead>
              <tbody>
                {table.columns.map((column) => (
                  <tr key={column}>
                    <td>
                      <label class="box">
                        <input
                          type="checkbox" checked={column === id || taken.has(column)} disabled={column === id}
                          onChange={(event) => {
                            const now = new Set(taken);
                            event.currentTarget.checked ? now.add(column) : now.delete(column);
                            setTaken(now);
                          }}
                        />
                        {column}
                      </label>
                    </td>
                    <td>{kindOf(table, column)}</td>
                    {table.rows.slice(0, PREVIEWED).map((row, place) => <td key={place}>{String(row[column] ?? "")}</td>)}
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </AskingForm>
      )}
      <p role="status" id="put-done">{done}</p>
      {refused.length > 0 && (
        <ul class="rules" id="refused" aria-label="Refused rows">
          {refused.slice(0, SHOWN_REFUSED).map((one) => <li key={one.row}>row {one.row.toLocaleString("en")}: {one.message}</li>)}
          {refused.length > SHOWN_REFUSED && <li>and {(refused.length - SHOWN_REFUSED).toLocaleString("en")} more</li>}
        </ul>
      )}
    </section>
  );
};
