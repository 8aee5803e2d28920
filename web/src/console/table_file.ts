/** Records of a file: CSV with a heading (RFC 4180), or JSON Lines. */

export type Value = string | number | boolean | null;

/** Columns in their order, and the rows by column. */
export interface Table {
  columns: string[];
  rows: Record<string, Value>[];
}

/** Lines of a CSV text as fields; a quoted one may hold separators, line ends and doubled quotes. */
export const csvFields = (text: string, separator: string): string[][] => {
  const lines: string[][] = [];
  let fields: string[] = [];
  let field = "";
  let isQuoted = false;
  const endField = (): void => {
    fields.push(field);
    field = "";
  };
  const endLine = (): void => {
    endField();
    if (fields.length > 1 || fields[0]) lines.push(fields);
    fields = [];
  };
  for (let at = 0; at < text.length; at++) {
    const letter = text[at]!;
    if (isQuoted) {
      if (letter !== '"') field += letter;
      else if (text[at + 1] === '"') field += text[at++];
      else isQuoted = false;
    } else if (letter === '"' && !field) isQuoted = true;
    else if (letter === separator) endField();
    else if (letter === "\n") endLine();
    else if (letter !== "\r") field += letter;
  }
  endLine();
  return lines;
};

/** A number or a truth value where the text is one as JSON writes it; an empty text is none. */
const valued = (text: string): Value => {
  if (text === "") return null;
  if (/^-?(0|[1-9]\d{0,14})(\.\d+)?$/.test(text)) return Number(text);
  return text === "true" ? true : text === "false" ? false : text;
};

/** The table in a text; an error in words where it is none. */
export const tableOf = (text: string): Table => {
  const whole = text.replace(/^\ufeff/, "");
  if (whole.trimStart().startsWith("{")) {
    const rows = whole.split("\n").filter((line) => line.trim()).map((line, place) => {
      try {
        return JSON.parse(line) as Record<string, Value>;
      } catch {
        throw new Error(`Line ${place + 1} is no JSON.`);
      }
    });
    return { columns: [...new Set(rows.flatMap((row) => Object.keys(row)))], rows };
  }
  const heading = whole.slice(0, whole.indexOf("\n") + 1 || whole.length);
  const separator = [",", ";", "\t"].reduce((best, one) =>
    heading.split(one).length > heading.split(best).length ? one : best);
  const [columns = [], ...lines] = csvFields(whole, separator);
  const uneven = lines.findIndex((fields) => fields.length !== columns.length);
  if (uneven >= 0)
    throw new Error(`Row ${uneven + 1} has ${lines[uneven]!.length} fields, and the heading ${columns.length}.`);
  const rows = lines.map((fields) =>
    Object.fromEntries(columns.map((name, place) => [name, valued(fields[place]!)])));
  return { columns, rows };
};

/** The column that is likely the items' ids. */
export const idColumn = (columns: readonly string[]): string => {
  const folded = (name: string): string => name.toLowerCase().replace(/[_\s-]/g, "");
  const wanted = ["itemid", "id", "sku", "productid", "handle"];
  return wanted.flatMap((one) => columns.filter((name) => folded(name) === one))[0] ?? columns[0] ?? "";
};
