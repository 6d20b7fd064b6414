"""Prints the Vulkan devices that the loader finds, one name a line; nothing when there is no loader or no device.

Only a driver that loads and enumerates a device is usable: a manifest in icd.d proves neither.
"""
import ctypes
import sys

try:
    vulkan = ctypes.CDLL("libvulkan.so.1")
except OSError:
    sys.exit()

create_info = (ctypes.c_uint64 * 8)()  # VkInstanceCreateInfo: all zero apart from its type
create_info[0] = 1  # VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO
instance = ctypes.c_void_p()
if vulkan.vkCreateInstance(create_info, None, ctypes.byref(instance)) != 0:
    sys.exit()

count = ctypes.c_uint32()
if vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None) != 0:
    sys.exit()
devices = (ctypes.c_void_p * count.value)()
vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), devices)
for device in devices[: count.value]:
    properties = ctypes.create_string_buffer(4096)  # VkPhysicalDeviceProperties: 5 x u32, then the name
    vulkan.vkGetPhysicalDeviceProperties(ctypes.c_void_p(device), properties)
    print(properties.raw[20:276].split(b"\0")[0].decode(errors="replace"))
