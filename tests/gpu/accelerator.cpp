// Tells a torch without CUDA that there is one GPU, on which nothing can be computed: tests/gpu/pretend.py does that.

#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

using c10::Device, c10::DeviceIndex, c10::DeviceType, c10::Stream;

namespace {

const Device GPU(DeviceType::CUDA, 0);
const Stream STREAM(Stream::DEFAULT, GPU);

struct Guard final : c10::impl::NoOpDeviceGuardImpl<DeviceType::CUDA> {
    Device getDevice() const override { return GPU; }
    Device exchangeDevice(Device) const override { return GPU; }
    Stream getStream(Device) const noexcept override { return STREAM; }
    Stream exchangeStream(Stream) const noexcept override { return STREAM; }
    void record(void**, const Stream&, const DeviceIndex, const c10::EventFlag) const override {}
    void block(void*, const Stream&) const override {}
    bool queryEvent(void*) const override { return true; }
};

C10_REGISTER_GUARD_IMPL(CUDA, Guard)

}  // namespace

namespace at {

struct CUDAHooks final : CUDAHooksInterface {
    explicit CUDAHooks(CUDAHooksArgs) {}
    void init() const override {}
    bool hasCUDA() const override { return true; }
    bool isBuilt() const override { return true; }
    bool isAvailable() const override { return true; }
    bool hasPrimaryContext(DeviceIndex) const override { return true; }
    DeviceIndex deviceCount() const override { return 1; }
    DeviceIndex getCurrentDevice() const override { return 0; }
    void setCurrentDevice(DeviceIndex) const override {}
    DeviceIndex exchangeDevice(DeviceIndex) const override { return 0; }
    DeviceIndex maybeExchangeDevice(DeviceIndex) const override { return 0; }
};

REGISTER_CUDA_HOOKS(CUDAHooks)

}  // namespace at
