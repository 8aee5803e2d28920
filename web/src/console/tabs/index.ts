/** The tabs of the console, in their order: one file each. */

import type { JSX } from "preact";
import type { TabProps } from "../tab";
import { Access } from "./access";
import { Events } from "./events";
import { Experiments } from "./experiments";
import { Items } from "./items";
import { Outcomes } from "./outcomes";
import { Overview } from "./overview";
import { Personalize } from "./personalize";
import { Placements } from "./placements";
import { Quality } from "./quality";
import { Settings } from "./settings";
import { Playground } from "./try";
import { Users } from "./users";

/** A tab: its title, what it shows, and whether it names items. */
export interface Tab {
  title: string;
  View: (props: TabProps) => JSX.Element;
  namesItems?: boolean;
}

/** Tabs by their name in the address. */
export const TABS: Readonly<Record<string, Tab>> = {
  overview: { title: "Overview", View: Overview },
  try: { title: "Try", View: Playground, namesItems: true },
  items: { title: "Items", View: Items, namesItems: true },
  users: { title: "Users", View: Users, namesItems: true },
  placements: { title: "Placements", View: Placements, namesItems: true },
  outcomes: { title: "Outcomes", View: Outcomes },
  experiments: { title: "Experiments", View: Experiments },
  events: { title: "Events", View: Events },
  quality: { title: "Quality", View: Quality },
  personalize: { title: "Personalize", View: Personalize },
  access: { title: "Access", View: Access },
  settings: { title: "Settings", View: Settings },
};
