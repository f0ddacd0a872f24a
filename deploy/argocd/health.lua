-- Health of an LLMDeployment for Argo CD: ConfigMap argocd-cm, key resource.customizations.health.llmd.dev_LLMDeployment
local health = {status = "Progressing", message = "waiting for the operator"}

if obj.metadata.deletionTimestamp ~= nil then
  health.message = "being deleted"
  return health
end

if obj.status == nil or obj.status.conditions == nil or
    obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end

if obj.spec ~= nil and obj.spec.stopped == true then
  health.status = "Suspended"
  health.message = "stopped by spec.stopped"
  return health
end

for _, condition in ipairs(obj.status.conditions) do
  if condition.type == "Stalled" and condition.status == "True" then
    health.status = "Degraded"
    health.message = condition.message
    return health
  end
end

for _, condition in ipairs(obj.status.conditions) do
  if condition.type == "Ready" then
    health.message = condition.message
    if condition.status == "True" then
      health.status = "Healthy"
    end
  end
end

return health
