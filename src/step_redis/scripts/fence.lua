-- Ends the script with {'LOST'} unless the caller's lease lives; nothing is changed then.
if is_new or not alive(caller) then return {'LOST'} end
