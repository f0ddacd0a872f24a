{{- define "llmd.name" -}}
{{- if contains "llmd" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-llmd" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "llmd.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "llmd.name" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- define "llmd.selector" -}}
app.kubernetes.io/name: llmd-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "llmd.labels" -}}
{{ include "llmd.selector" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: llmd
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "llmd.tag" -}}
{{- .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Where our images are: the operator's and those that it renders. `global.imageRegistry` takes the place of the
registry's name. */}}
{{- define "llmd.repository" -}}
{{- $repository := .Values.image.repository | trimSuffix "/" }}
{{- if not $repository }}
{{- fail (printf "image.repository is empty, so there is no image to run; fix: helm upgrade --install %s <chart> --namespace %s --set image.repository=ghcr.io/llmd-dev" .Release.Name .Release.Namespace) }}
{{- end }}
{{- with .Values.global.imageRegistry }}
{{- $parts := splitList "/" $repository }}
{{- $host := first $parts }}
{{- if or (contains "." $host) (contains ":" $host) (eq $host "localhost") }}
{{- $parts = rest $parts }}
{{- end }}
{{- $repository = join "/" (prepend $parts (trimSuffix "/" .)) }}
{{- end }}
{{- $repository }}
{{- end }}

{{- define "llmd.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s/llmd@%s" (include "llmd.repository" .) .Values.image.digest }}
{{- else }}
{{- printf "%s/llmd:%s" (include "llmd.repository" .) (include "llmd.tag" .) }}
{{- end }}
{{- end }}
