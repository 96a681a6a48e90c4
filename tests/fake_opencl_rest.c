/* fake_opencl_rest.c - functions that a library must have to count as OpenCL's, and that nobody
 * calls in fake_opencl.c's world.  Apart, because their true types stand in OpenCL's headers. */
#define NOT_CALLED(name) \
    int name(void);      \
    int name(void) { return -59; }

NOT_CALLED(clReleaseContext)
NOT_CALLED(clCreateCommandQueue)
NOT_CALLED(clReleaseCommandQueue)
NOT_CALLED(clCreateBuffer)
NOT_CALLED(clReleaseMemObject)
NOT_CALLED(clEnqueueReadBuffer)
NOT_CALLED(clEnqueueWriteBuffer)
NOT_CALLED(clEnqueueCopyBuffer)
NOT_CALLED(clCreateProgramWithSource)
NOT_CALLED(clCreateProgramWithBinary)
NOT_CALLED(clBuildProgram)
NOT_CALLED(clGetProgramInfo)
NOT_CALLED(clGetProgramBuildInfo)
NOT_CALLED(clReleaseProgram)
NOT_CALLED(clCreateKernelsInProgram)
NOT_CALLED(clCreateKernel)
NOT_CALLED(clReleaseKernel)
NOT_CALLED(clSetKernelArg)
NOT_CALLED(clGetKernelWorkGroupInfo)
NOT_CALLED(clEnqueueNDRangeKernel)
NOT_CALLED(clFlush)
NOT_CALLED(clFinish)
