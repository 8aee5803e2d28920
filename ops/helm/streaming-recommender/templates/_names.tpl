{{- define "recommender.name" -}}
{{ printf "%s-recommender" .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "recommender.labels" -}}
app.kubernetes.io/name: recommender
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "recommender.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{/* Environment of every container: settings as variables, secrets as names of files. */}}
{{- define "recommender.env" -}}
{{- range $name, $value := .Values.settings }}
- name: RECOMMENDER_{{ upper $name }}
  value: {{ if kindIs "string" $value }}{{ quote $value }}{{ else }}{{ toJson $value | quote }}{{ end }}
{{- end }}
{{- if not (hasKey .Values.settings "allowed_hosts") }}
{{- $service := printf "%s-api" (include "recommender.name" .) }}
- name: RECOMMENDER_ALLOWED_HOSTS
  value: "{{ $service }},{{ $service }}.{{ .Release.Namespace }},*.svc,*.svc.cluster.local"
{{- end }}
{{- range .Values.secret.settings }}
- name: RECOMMENDER_{{ upper . }}_FILE
  value: /run/secrets/recommender/{{ . }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A pod of one command; takes root, command, and optionally resources, port, probes, env. */}}
{{- define "recommender.pod" -}}
{{- $root := .root -}}
serviceAccountName: {{ include "recommender.name" $root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
terminationGracePeriodSeconds: 45
{{- with $root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "recommender.labels" $root | nindent 8 }}
        app.kubernetes.io/component: {{ .command }}
containers:
  - name: {{ .command }}
    image: {{ include "recommender.image" $root | quote }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    args: [{{ .command }}]
    env:
      {{- include "recommender.env" $root | trim | nindent 6 }}
      - name: RECOMMENDER_HOST
        value: 0.0.0.0
      {{- if eq .command "api" }}
      - name: RECOMMENDER_PORT
        value: "8080"
      {{- else if ne .command "topics" }}
      - name: RECOMMENDER_METRICS_PORT
        value: "9100"
      {{- end }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
    {{- with .resources }}
    resources:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- if eq .command "api" }}
    ports: [{name: http, containerPort: 8080}]
    # A processor other than that of the build compiles the inner loops again, half a minute of a core.
    startupProbe:
      httpGet: {path: /healthz, port: http}
      periodSeconds: 2
      failureThreshold: 90
    readinessProbe:
      httpGet: {path: /readyz, port: http}
      periodSeconds: 5
      timeoutSeconds: 4
    livenessProbe:
      httpGet: {path: /healthz, port: http}
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 6
    # Proxies learn that it ends before it takes no more.
    lifecycle: {preStop: {sleep: {seconds: 5}}}
    {{- else if ne .command "topics" }}
    ports: [{name: metrics, containerPort: 9100}]
    startupProbe:
      httpGet: {path: /metrics, port: metrics}
      periodSeconds: 2
      failureThreshold: 90
    livenessProbe:
      httpGet: {path: /metrics, port: metrics}
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 6
    {{- end }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      - {name: secrets, mountPath: /run/secrets/recommender, readOnly: true}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: 1Gi}
  - name: secrets
    secret: {secretName: {{ $root.Values.secret.name | quote }}, defaultMode: 0440}
{{- end }}
